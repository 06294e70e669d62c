"""Boxes around objects in a picture, each with a class (object detection): cells, cars, faces."""
