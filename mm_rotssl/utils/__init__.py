from .files import save_figure, write_file

__all__ = ['save_figure', 'write_file']
