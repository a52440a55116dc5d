"""Boxes, instances and layouts: parsing, validation, pairing, the token grid."""
