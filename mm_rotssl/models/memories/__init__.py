from .memory_bank import MemoryBank
from .nearest_neighbour_queue import NearestNeighbourQueue

__all__ = ['MemoryBank', 'NearestNeighbourQueue']
