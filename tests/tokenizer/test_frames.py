"""Frames follow their definition, and are missing where there is nothing to build them from."""

import numpy as np

from foldmint_tokenizer.frames import backbone_frames


def test_axes_of_a_residue_laid_out_by_hand() -> None:
    # CA at (1, 1, 1), C one step along -x from it, N above: x = CA - C, y towards N, z = x × y.
    residue = np.array([[[2.0, 3.0, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]])
    frames = backbone_frames(np.concatenate([residue, residue + 5]))
    np.testing.assert_allclose(frames.rotation[0], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(frames.origin[1] - frames.origin[0], [5, 5, 5])
    assert frames.exists.all()


def test_no_frame_without_three_atoms_off_one_line() -> None:
    good = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.5, 0.0, 0.0]])
    missing, infinite, on_a_line, on_one_spot = good.copy(), good.copy(), good.copy(), np.zeros((3, 3))
    missing[1, 2] = np.nan
    infinite[0, 0] = np.inf
    on_a_line[0] = [-3.0, 0.0, 0.0]
    frames = backbone_frames(np.stack([good, missing, infinite, on_a_line, on_one_spot]))
    assert frames.exists.tolist() == [True, False, False, False, False]
    assert np.isfinite(frames.rotation).all()
    np.testing.assert_array_equal(frames.rotation[1:], np.broadcast_to(np.eye(3), (4, 3, 3)))


def test_far_from_the_origin_nothing_is_lost() -> None:
    random = np.random.default_rng(0)
    near = random.normal(size=(20, 3, 3)) * 5
    far = near + 900_000
    np.testing.assert_allclose(backbone_frames(far).rotation, backbone_frames(near).rotation, atol=1e-6)
