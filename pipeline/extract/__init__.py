"""HTML to text: what a server sent becomes the text of a page, in a child process with limits."""
