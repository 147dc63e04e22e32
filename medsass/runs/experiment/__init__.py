"""`medsass experiment`: grids of trainings, their tables and figures."""
