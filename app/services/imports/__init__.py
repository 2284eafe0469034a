"""Import identities from a file of embeddings or a folder of photos, each row exactly once.

A source is read in batches. The rows of a batch, the next revision of the collection and the position up to
which the source is done with are written in one transaction: whenever the process ends, the next run goes on
at that position, and no row is missing or there twice. A file is known by the SHA-256 of its bytes; a folder
by that of its files' names, sizes and times of change, so that a hundred thousand photos need not be read to
know where to go on.

Rows of one identity that follow one another are its references, as many as the collection keeps of one
identity. A batch never ends between them.
"""
