from .memory_bank import MemoryBank
from .nearest_neighbor_queue import NearestNeighborQueue

__all__ = ['MemoryBank', 'NearestNeighborQueue']
