from .larc import LARC
from .row_sgd import RowSGD

__all__ = ['LARC', 'RowSGD']
