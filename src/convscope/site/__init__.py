"""The pages of an atlas: from a survey and images to a site that opens from a file. NumPy, Pillow and Jinja2; never torch."""
