"""The losses of the source texts: each a function on tensors, and a thin Keras class around it.

Throughout, ``labels`` are int[B] subject numbers, ``embeddings`` float[B, D], and ``same`` is a boolean
tensor (True: mated). Everything is computed in float32, whatever the dtype of the encoder.
"""
