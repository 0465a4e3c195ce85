from .probe_necks import FlattenNeck, NINConvNeck

__all__ = ['FlattenNeck', 'NINConvNeck']
