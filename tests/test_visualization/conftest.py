import io

import pytest
from matplotlib.image import imread


@pytest.fixture
def rendered():
    """A function that gives a figure's pixels as saved: int (H, W, 3)."""

    def render(figure):
        data = io.BytesIO()
        figure.savefig(data, format='png', dpi=figure.dpi)
        data.seek(0)
        return (imread(data)[..., :3] * 255).round().astype(int)

    return render
