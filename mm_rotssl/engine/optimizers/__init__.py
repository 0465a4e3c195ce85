from .row_sgd import RowSGD

__all__ = ['RowSGD']
