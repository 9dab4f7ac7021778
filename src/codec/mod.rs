//! Filter pipelines: from the bytes of a stored chunk to its elements, and back.
