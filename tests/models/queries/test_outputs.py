"""Which part of the masks is the frame's, and which queries are asked for."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tubelet.models.queries.outputs import best_queries, cut_padding, query_at


def test_masks_end_with_the_frame_and_not_with_the_padding() -> None:
    columns = torch.arange(16.0).expand(1, 1, 8, 16)  # network pixels 2, 6, 10, ... in a width of 64
    assert torch.equal(cut_padding(columns, (32, 48)), columns[..., :12])
    cut = cut_padding(columns, (32, 50))  # 12 cells of 4 1/6 pixels
    assert cut.shape == (1, 1, 8, 12)
    centres = (torch.arange(12) + 0.5) * 50 / 12
    torch.testing.assert_close(cut[0, 0, 0], (centres - 2) / 4, atol=1e-4, rtol=0)
    full = F.interpolate(cut, (32, 50), mode="bilinear", align_corners=False)[0, 0, 0]
    torch.testing.assert_close(full[4:-4], (torch.arange(50)[4:-4] + 0.5 - 2) / 4, atol=1e-3, rtol=0)


def test_the_best_queries_come_first_and_equal_ones_in_their_order() -> None:
    probabilities = torch.tensor([[0.2, 0.5], [0.9, 0.0], [0.5, 0.1]])
    assert best_queries(probabilities, 3).tolist() == [1, 0, 2]
    assert best_queries(probabilities, 9).tolist() == [1, 0, 2]


def test_the_query_at_a_point_is_the_one_whose_likely_object_covers_it() -> None:
    masks = torch.full((3, 4, 6), -9.0)
    masks[0, :, :3] = masks[1, :, 3:] = masks[2] = 9.0
    probabilities = torch.tensor([[0.9], [0.8], [0.1]])
    assert query_at(probabilities, masks, (10.0, 5.0), (40, 60)) == 0
    assert query_at(probabilities, masks, (59.9, 39.9), (40, 60)) == 1
