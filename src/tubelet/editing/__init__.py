"""Mend a result by hand: delete, merge, split, swap, rename, redraw and add, with undo; knows only `core`."""
