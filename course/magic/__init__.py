"""What `%load_ext course` brings into a notebook.

%%exercise 3.2     puts the cell into the learner's file, makes it live, grades it, shows the card
%undo 3.2          brings the version before back
%exercise 3.2      loads the code in the file into a new cell
%course_module 3   says which module the notebook is about, so that earlier ones can't hold it up

cell.py       reads a cell, and says in words why it can't be taken
place.py      puts what it read into the text of a file
history.py    keeps every version that stood in a file
live.py       mends living functions and classes in place
earlier.py    lets earlier modules work in this kernel, whatever is still to be written there
waiting.py    says "waiting for 3.2" where a traceback would say less
magics.py     the magics themselves
"""
