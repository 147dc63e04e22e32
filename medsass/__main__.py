"""`python -m medsass`, which is also how torchrun starts it: torchrun --nproc-per-node 2 -m medsass train SHARDS RUN."""

from medsass.cli import main

if __name__ == "__main__":
    main(prog_name="medsass")
