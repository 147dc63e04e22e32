"""What a source folder holds: files, pairs of images and masks, classes, groups and splits."""
