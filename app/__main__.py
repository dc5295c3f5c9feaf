"""Make `python -m app` the same as `poolkeeper`; holds nothing of its own."""

from app.cli import main

if __name__ == "__main__":
    main()
