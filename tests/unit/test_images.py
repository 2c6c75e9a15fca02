"""Reading NIfTI files by content, and images by subject from batches in any order."""

from __future__ import annotations

import gzip
import os

import nibabel
import numpy as np
import pytest

from rvga import formats, image_files, image_parts, images
from rvga.errors import InputError
from rvga.geometry import Geometry, add_geometry, volume_of

AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -4], [0, 0, 2, -3], [0, 0, 0, 1]])


def volume(shape=(4, 3, 2), seed=0):
    """Return a random float32 volume."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def save(path, data, affine=AFFINE, kind=nibabel.Nifti1Image):
    """Write a NIfTI file whatever its name."""
    path.write_bytes(kind(data, affine).to_bytes())
    return path


def read_image(path, geometry, mask_name):
    """Return an image's values inside a mask of this geometry."""
    mask = save(path.parent / mask_name, volume_of(np.ones(geometry.n_voxels), geometry, 0.0))
    files = image_parts.PartFiles(mask=mask)
    return image_parts.open_part(files, image_parts.Rules(), path).read(path)


@pytest.fixture
def geometry():
    index = np.argwhere(np.ones((4, 3, 2))).astype(np.int32)
    return Geometry(AFFINE, (4, 3, 2), index)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img", "plain"])
def test_format_is_told_by_content(tmp_path, kind, compressed, name):
    data = volume()
    content = kind(data, AFFINE).to_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if compressed else content)
    found, affine = image_files.read_volume(path)
    np.testing.assert_array_equal(found, data)
    np.testing.assert_array_equal(affine, AFFINE)


def test_big_endian_and_scaled_integers_are_read(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(data, AFFINE, header)
    image.header.set_slope_inter(0.5, 10)
    path = tmp_path / "a.nii"
    path.write_bytes(image.to_bytes())
    found, _ = image_files.read_volume(path)
    np.testing.assert_allclose(found, data * 0.5 + 10)


def test_a_fourth_dimension_of_one_is_accepted_and_of_two_is_not(tmp_path):
    data = volume()
    found, _ = image_files.read_volume(save(tmp_path / "a.nii", data[..., None]))
    np.testing.assert_array_equal(found, data)
    two = save(tmp_path / "b.nii", np.stack([data, data], axis=-1))
    with pytest.raises(InputError, match=r"b\.nii: has shape 4 x 3 x 2 x 2, but one 3-D"):
        image_files.read_volume(two)


def test_files_that_are_no_images_are_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    with pytest.raises(InputError, match="no such file"):
        image_files.read_volume(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        image_files.read_volume(path)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(InputError, match="not a NIfTI, Analyze or MGH file"):
        image_files.read_volume(path)
    path.write_text("subject,image\n" * 100)
    with pytest.raises(InputError, match="not a NIfTI, Analyze or MGH file"):
        image_files.read_volume(path)
    colour = np.zeros((4, 3, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match="real numbers are due"):
        image_files.read_volume(save(path, colour))
    with pytest.raises(InputError, match="real numbers are due"):
        image_files.read_volume(save(path, volume().astype(np.complex64)))


@pytest.mark.parametrize("length", [4, 200, 348, 351, 352, 360, -1])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_short_is_refused(tmp_path, length, compressed):
    content = nibabel.Nifti1Image(volume(), AFFINE).to_bytes()[:length]
    path = tmp_path / "a.nii"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(InputError, match=r"a\.nii: (cut short|not a NIfTI file)"):
        image_files.read_volume(path)


@pytest.mark.parametrize("length", [11, 100, -9, -4, -1])
def test_a_compressed_file_cut_short_is_refused(tmp_path, length):
    content = gzip.compress(nibabel.Nifti1Image(volume(), AFFINE).to_bytes())
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content[:length])
    with pytest.raises(InputError, match=r"a\.nii\.gz: the compressed file is cut short"):
        image_files.read_volume(path)


@pytest.mark.parametrize(
    ("offset", "value"), [(40, b"\xff\xff"), (70, b"\xff\x7f"), (108, b"\x00\x00\xc0\x7f")]
)
def test_a_damaged_header_is_refused(tmp_path, offset, value):
    content = bytearray(nibabel.Nifti1Image(volume(), AFFINE).to_bytes())
    content[offset : offset + len(value)] = value
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    with pytest.raises(InputError, match="header is damaged"):
        image_files.read_volume(path)


def test_mask_is_what_is_finite_and_above_zero(tmp_path):
    data = np.zeros((4, 3, 2), dtype=np.float32)
    data[1, 2, 0], data[3, 0, 1], data[0, 0, 0], data[2, 2, 1] = 1, 0.5, -1, np.nan
    data[2, 0, 0] = np.inf
    geometry = image_parts.volume_geometry(save(tmp_path / "mask.nii", data))
    assert geometry.index.tolist() == [[1, 2, 0], [3, 0, 1]]
    assert geometry.shape == (4, 3, 2)
    data[1, 2, 0] = 0
    with pytest.raises(InputError, match="mask has 1 voxels above 0"):
        image_parts.volume_geometry(save(tmp_path / "mask.nii", data))


def test_values_are_in_the_masks_order(tmp_path, geometry):
    data = volume()
    data[1, 1, 1], data[0, 2, 1] = np.inf, np.nan
    values = read_image(save(tmp_path / "a.nii", data), geometry, "mask.nii")
    expected = np.where(np.isfinite(data), data, np.nan)
    np.testing.assert_array_equal(values, [expected[tuple(i)] for i in geometry.index])


def test_values_beyond_float32_are_missing(tmp_path, geometry):
    data = volume().astype(np.float64)
    data[0, 0, 0] = 1e300
    values = read_image(save(tmp_path / "a.nii", data), geometry, "mask.nii")
    assert np.isnan(values[0])
    assert np.isfinite(values[1:]).all()


def test_another_grid_is_refused_with_both_named(tmp_path, geometry):
    other = save(tmp_path / "a.nii", volume((4, 3, 3)))
    with pytest.raises(InputError, match=r"a\.nii: has shape 4 x 3 x 3.*m\.nii has 4 x 3 x 2"):
        read_image(other, geometry, "m.nii")
    shifted = AFFINE.copy()
    shifted[0, 3] += 1
    with pytest.raises(InputError, match=r"\[2 0 0 -4\].*m\.nii \(\[2 0 0 -5\].*1 mm apart"):
        read_image(save(tmp_path / "a.nii", volume(), shifted), geometry, "m.nii")


@pytest.mark.parametrize(("shift", "accepted"), [(0.0009, True), (0.0011, False)])
def test_the_tolerance_of_affines_is_at_the_corners(tmp_path, geometry, shift, accepted):
    # A wrong voxel size shows most at the far corner, 3 steps along the first axis.
    affine = AFFINE.copy()
    affine[0, 0] += shift / 3
    path = save(tmp_path / "a.nii", volume(), affine)
    if accepted:
        read_image(path, geometry, "m.nii")
    else:
        with pytest.raises(InputError, match="resample"):
            read_image(path, geometry, "m.nii")


def test_an_image_without_any_value_is_refused(tmp_path, geometry):
    path = save(tmp_path / "a.nii", np.full((4, 3, 2), np.nan, dtype=np.float32))
    with pytest.raises(InputError, match="no voxel inside the mask has a finite value"):
        read_image(path, geometry, "m.nii")


def test_subject_lists(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("b\na \n")
    assert images.read_subject_list(path) == ["b", "a"]
    path.write_text("a\nb\na\n")
    with pytest.raises(InputError, match=r"subject 'a' is there twice \(lines 1 and 3\)"):
        images.read_subject_list(path)
    path.write_text("a\n\nb\n")
    with pytest.raises(InputError, match="line 2 is blank"):
        images.read_subject_list(path)


def batch(path, subjects, geometry, values):
    """Write an images file."""
    with formats.create(path, "images", {"geometry_type": "nifti"}) as writer:
        writer.add("images", values, chunks=images.image_chunk(values.shape[1]))
        writer.add("subject", subjects)
        writer.add("image_digest", images.image_digests(values))
        writer.add("coordinates", geometry.coordinates)
        writer.add("voxel_count", np.isfinite(values).sum(axis=0))
        writer.add("voxel_sum", np.nansum(values, axis=0))
        writer.add("voxel_sum_of_squares", np.nansum(values**2, axis=0))
        add_geometry(writer, geometry)
    return path


def test_rows_come_in_the_order_asked_for_whatever_the_batches(tmp_path, geometry):
    X = np.random.default_rng(0).normal(size=(7, 24)).astype(np.float32)
    names = list("cagbfed")
    one = batch(tmp_path / "one.h5", names[:4], geometry, X[:4])
    two = batch(tmp_path / "two.h5", names[4:], geometry, X[4:])
    wanted = ["g", "e", "a", "b", "f", "c"]
    expected = X[[names.index(name) for name in wanted]]
    digests = set()
    for paths in ([one, two], [two, one]):
        with images.ImageSet(paths) as found:
            assert found.subject == sorted(names)
            assert found.batch_counts.tolist() == [7] * 24
            np.testing.assert_array_equal(found.rows(wanted), expected)
            blocks = list(found.blocks(wanted, size=4))
            assert [(first, stop) for first, stop, _ in blocks] == [(0, 4), (4, 6)]
            np.testing.assert_array_equal(np.vstack([b for *_, b in blocks]), expected)
            digest = found.new_digest()
            digest.update(wanted, expected)
            digests.add(digest.hexdigest())
            # The same from each image's own identity, by parts.
            digest = images.ImageDigest(images.geometry_digest(found.geometry))
            for part in (slice(0, 2), slice(2, 6)):
                digest.add(wanted[part], images.image_digests(expected[part]))
            digests.add(digest.hexdigest())
            # The same as stored, without reading an image.
            np.testing.assert_array_equal(found.digests(wanted), images.image_digests(expected))
            digests.add(found.digest(wanted).hexdigest())
            with pytest.raises(InputError, match="'z' of the sample is in none"):
                found.digest(["a", "z"])
            with pytest.raises(InputError, match="'z' of the sample is in none"):
                found.rows(["a", "z"])
    assert len(digests) == 1


def test_batches_that_do_not_belong_together_are_refused(tmp_path, geometry):
    X = np.zeros((2, 24), dtype=np.float32)
    one = batch(tmp_path / "one.h5", ["a", "b"], geometry, X)
    two = batch(tmp_path / "two.h5", ["c", "a"], geometry, X)
    with pytest.raises(InputError, match=r"two\.h5: subject 'a' is there twice"):
        images.ImageSet([one, two])
    fewer = geometry.subset(np.arange(20))
    three = batch(tmp_path / "three.h5", ["x", "y"], fewer, X[:, :20])
    with pytest.raises(InputError, match=r"three\.h5: is on other voxels"):
        images.ImageSet([one, three])


def test_a_missing_value_is_the_voxels_mean(tmp_path, geometry):
    values = np.arange(96, dtype=np.float32).reshape(4, 24)
    values[1, 3], values[2, 5], values[3, 7] = np.nan, np.inf, np.nan
    path = tmp_path / "x.h5"
    batch(path, list("abcd"), geometry, values)
    voxel_index, mean = np.array([3, 5, 8]), np.array([0.25, -1.0, 7.0])
    expected = values[:, [3, 5, 8]]
    expected[1, 0], expected[2, 1] = 0.25, -1
    with formats.open_file(path, "images") as found:
        for rows in (slice(1, 3), [0, 3]):
            filled = images.read_filled(found, rows, voxel_index, mean)
            np.testing.assert_array_equal(filled, expected[rows])
            assert filled.dtype == np.float32


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"fletcher32": False}])
@pytest.mark.parametrize("width", [24, 7])
def test_rows_without_checksums_are_the_same(tmp_path, geometry, options, width):
    stored = np.random.default_rng(0).normal(size=(6, 24)).astype(np.float32)
    with formats.create(tmp_path / "a.h5", "images", {"geometry_type": "nifti"}) as writer:
        writer.reserve("images", (6, 24), chunks=(1, width), **options)[...] = stored
        writer.add("subject", [f"s{row}" for row in range(6)])
        writer.add("image_digest", images.image_digests(stored))
        writer.add("voxel_count", np.full(24, 6))
        writer.add("voxel_sum", stored.sum(axis=0, dtype=float))
        writer.add("voxel_sum_of_squares", (stored.astype(float) ** 2).sum(axis=0))
        writer.add("coordinates", geometry.coordinates)
        add_geometry(writer, geometry)
    with images.ImageSet([tmp_path / "a.h5"]) as opened:
        found = opened.rows(["s4", "s0", "s1"], checked=False)
        np.testing.assert_array_equal(found, stored[[4, 0, 1]])
        pieces = [piece for _, _, piece in opened.blocks(opened.subject, 4, checked=False)]
        np.testing.assert_array_equal(np.vstack(pieces), stored)


def test_stored_rows_are_read_by_few_calls_which_may_return_less(tmp_path, geometry, monkeypatch):
    X = np.random.default_rng(0).normal(size=(9, 24)).astype(np.float32)
    names = [f"s{row}" for row in range(9)]
    with images.ImageSet([batch(tmp_path / "x.h5", names, geometry, X)]) as found:
        calls, whole = [], os.preadv

        def counted(descriptor, targets, offset):
            calls.append(len(targets))
            return whole(descriptor, targets, offset)

        def little(descriptor, targets, offset):
            return whole(descriptor, [targets[0][:7]], offset)

        monkeypatch.setattr(os, "preadv", counted)
        np.testing.assert_array_equal(found.rows(names, checked=False), X)
        assert len(calls) <= 3
        monkeypatch.setattr(images, "_MOST_TARGETS", 4)
        np.testing.assert_array_equal(found.rows(names, checked=False), X)
        assert max(calls[-4:]) == 4
        monkeypatch.setattr(os, "preadv", little)
        np.testing.assert_array_equal(found.rows(names[::-2], checked=False), X[::-2])


def test_a_file_that_was_cut_since_it_was_opened(tmp_path, geometry):
    X = np.random.default_rng(0).normal(size=(9, 24)).astype(np.float32)
    names = [f"s{row}" for row in range(9)]
    path = batch(tmp_path / "x.h5", names, geometry, X)
    with images.ImageSet([path]) as found:
        os.truncate(path, path.read_bytes().index(X[7].tobytes()) + 5)
        np.testing.assert_array_equal(found.rows(names[:7], checked=False), X[:7])
        with pytest.raises(InputError, match=r"x\.h5: 'images' cannot be read: .*ends early"):
            found.rows(names, checked=False)


def test_a_block_stays_as_it_is_while_anything_refers_to_it(tmp_path, geometry):
    X = np.random.default_rng(0).normal(size=(9, 24)).astype(np.float32)
    names = [f"s{row}" for row in range(9)]
    path = batch(tmp_path / "x.h5", names, geometry, X)
    with images.ImageSet([path]) as found:
        for checked in (True, False):
            views = [block[1:, ::5].T for *_, block in found.blocks(names, 3, checked=checked)]
            for number, view in enumerate(views):
                np.testing.assert_array_equal(view.T, X[3 * number + 1 : 3 * number + 3, ::5])
            places = {
                block.__array_interface__["data"][0]
                for *_, block in found.blocks(names, 3, checked=checked)
            }
            # One that is looked at and one that is read.
            assert len(places) == 2


def test_a_changed_value_is_noticed_where_checksums_are_compared(tmp_path, geometry):
    X = np.random.default_rng(0).normal(size=(4, 24)).astype(np.float32)
    path = batch(tmp_path / "x.h5", list("abcd"), geometry, X)
    content = path.read_bytes()
    place = content.index(X[2].tobytes())
    path.write_bytes(content[:place] + b"\0" + content[place + 1 :])
    with images.ImageSet([path]) as found:
        with pytest.raises(InputError, match="'images' cannot be read: the file is damaged"):
            list(found.blocks(list("abcd")))
        with pytest.raises(InputError, match="'images' cannot be read: the file is damaged"):
            found.rows(["d", "c"])


def test_kept_voxels_are_a_view_only_where_nothing_is_filled_in(geometry):
    X = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.shares_memory(images.filled(X, slice(None), np.zeros(4)), X)
    X[1, 2] = np.nan
    found = images.filled(X, slice(None), np.full(4, 7.0))
    assert np.isnan(X[1, 2])
    assert found[1, 2] == 7.0
