"""The cases, a file each.  They quote the reference, so a class release leaves this folder out."""
