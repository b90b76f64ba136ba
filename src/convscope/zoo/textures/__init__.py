"""The bundled offline network `textures` and the procedural generator of its labelled images.

`generator` draws images with ground truth (numpy and pillow only), `network` builds the classifier and knows its weights file,
`train` makes those weights again. Importing this package loads none of them.
"""
