from .label_bank import LabelBank
from .memory_bank import MemoryBank
from .nearest_neighbor_queue import NearestNeighborQueue

__all__ = ['LabelBank', 'MemoryBank', 'NearestNeighborQueue']
