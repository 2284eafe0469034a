"""Encoders: Keras models from an image or a token sequence to an embedding, one family a file.

Each takes what the service will hand it, raw: images as uint8[N, H, W, C], text as int32[N, T] token numbers
with 0 for padding. Scaling and normalisation are layers of the model, so that preprocessing cannot drift
between training and serving.
"""
