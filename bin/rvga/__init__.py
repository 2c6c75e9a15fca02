"""RVGA: voxel-level genetic analysis of images by representation learning.

Nothing is imported here, so that a stage depends only on the modules that it names
(the digest of a stage's code follows its imports).
"""
