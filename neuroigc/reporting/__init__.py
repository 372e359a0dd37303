"""One study folder to one page."""
