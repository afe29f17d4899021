"""`python -m medseg_gan` is `medseg-gan`."""

from medseg_gan.cli import main

if __name__ == "__main__":
    main()
