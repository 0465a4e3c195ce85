# Exemplar-CNN on STL-10 with the large network; seed patches and recipe are those of
# the middle one.
_base_ = ['./exemplar-cnn_64c5-128c5-256c5-512f_1xb128-steplr-156e_stl10.py']

model = dict(
    backbone=dict(arch='92c5-256c5-512c5-1024f'), head=dict(in_channels=1024)
)
