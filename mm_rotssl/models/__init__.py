# with it, the engine reads checkpoints without running code
import mm_rotssl.utils  # noqa: F401

from .backbones import *  # noqa: F403
from .heads import *  # noqa: F403
from .losses import *  # noqa: F403
from .memories import *  # noqa: F403
from .necks import *  # noqa: F403
from .selfsup import *  # noqa: F403
from .utils import *  # noqa: F403
