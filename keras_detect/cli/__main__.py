"""`python -m keras_detect.cli`: the console script without its name."""

from keras_detect.cli import main

main()
