"""What plans of every Unix have in common: they are words for a program that does the rest between fork and exec."""
