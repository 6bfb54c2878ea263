"""How long a recipe would take, how much memory and disk, on more hours of speech or another machine."""
