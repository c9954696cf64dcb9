// Marks the package as one with assembly, so that functions without a body are allowed (go:linkname).
