"""The one envelope of all binary files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from rvga import formats
from rvga.errors import InputError

FLOW = [{"step": "images", "n_in": 2, "n_out": 2, "reason": "have an image"}]


def write(path, subjects=("a", "é"), voxels=(0, 2, 5), **options):
    """Write a subjects file."""
    attributes = {"sample_hash": "0123456789abcdef", "flow": FLOW}
    with formats.create(path, "subjects", attributes, **options) as writer:
        writer.add("subject", list(subjects))
        writer.add("voxel_index", np.array(voxels))
    return path


def digest_of(path):
    """Return a file's digest."""
    with formats.open_file(path, "subjects") as found:
        return found.digest


def test_what_is_written_is_read(tmp_path):
    path = write(tmp_path / "x.h5", inputs={"images": "abc"}, parameters={"k": [1, "b"]})
    with formats.open_file(path, "subjects") as found:
        assert found.array("subject").tolist() == ["a", "é"]
        assert found.array("voxel_index").tolist() == [0, 2, 5]
        assert found.attributes["sample_hash"] == "0123456789abcdef"
        assert found.inputs == {"images": "abc"}
        assert found.parameters == {"k": [1, "b"]}
        assert "subject" in found
        assert "images" not in found


def test_equal_content_gives_equal_bytes(tmp_path):
    one, two = write(tmp_path / "one.h5"), write(tmp_path / "two.h5")
    assert one.read_bytes() == two.read_bytes()


def test_the_digest_follows_content_parameters_and_inputs(tmp_path):
    digests = {
        digest_of(write(tmp_path / "x.h5", **options))
        for options in (
            {},
            {"subjects": ("a", "b")},
            {"voxels": (0, 2, 6)},
            {"inputs": {"images": "abc"}},
            {"parameters": {"k": 1}},
        )
    }
    assert len(digests) == 5
    assert digest_of(write(tmp_path / "x.h5")) == digest_of(write(tmp_path / "y.h5", code="new"))


def test_files_of_different_runs_are_told_apart(tmp_path):
    write(tmp_path / "one.h5")
    write(tmp_path / "two.h5", subjects=("a", "b"))
    with (
        formats.open_file(tmp_path / "one.h5", "subjects") as one,
        formats.open_file(tmp_path / "two.h5", "subjects") as two,
    ):
        write(tmp_path / "three.h5", inputs={"subjects": one.digest})
        with formats.open_file(tmp_path / "three.h5", "subjects") as three:
            three.require_made_from("subjects", one)
            with pytest.raises(InputError, match=r"three\.h5 was not made from two\.h5"):
                three.require_made_from("subjects", two)
            with pytest.raises(InputError, match="of different runs"):
                three.require_made_from("ldrs", one)


def write_part_of_it(path, error=None):
    """Write a subjects file without its voxels, and fail on the way where ``error`` is given."""
    with formats.create(path, "subjects", {"sample_hash": "", "flow": []}) as writer:
        writer.add("subject", ["a"])
        if error is not None:
            raise error


def test_nothing_is_left_when_writing_fails(tmp_path):
    with pytest.raises(RuntimeError):
        write_part_of_it(tmp_path / "x.h5", RuntimeError())
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_stays_when_writing_fails(tmp_path):
    path = write(tmp_path / "x.h5")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="dataset 'voxel_index' is missing"):
        write_part_of_it(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_undeclared_and_missing_things_are_refused(tmp_path):
    path = tmp_path / "x.h5"
    with (
        pytest.raises(ValueError, match=r"attributes \['flow'\] were not given"),
        formats.create(path, "subjects", {"sample_hash": ""}),
    ):
        pass
    with (
        pytest.raises(KeyError, match="'extra' is not declared"),
        formats.create(path, "subjects", {"sample_hash": "", "flow": []}) as writer,
    ):
        writer.add("extra", [1])


def write_ldrs(path, n_rows, subjects):
    """Write an LDRs file."""
    with formats.create(path, "ldrs", {}) as writer:
        writer.add("ldrs", np.zeros((n_rows, 4)))
        writer.add("subject", subjects)
        writer.add("quality_components", [1])
        writer.add("quality_correlation", [0.5])


def test_one_letter_has_one_size(tmp_path):
    write_ldrs(tmp_path / "x.h5", 3, list("abc"))
    with pytest.raises(ValueError, match="n = 3, but"):
        write_ldrs(tmp_path / "y.h5", 2, list("abc"))
    assert list(tmp_path.iterdir()) == [tmp_path / "x.h5"]


def test_files_that_are_not_of_the_kind_are_refused(tmp_path):
    path = tmp_path / "x.h5"
    with pytest.raises(InputError, match="no such file"):
        formats.open_file(path, "subjects")
    path.write_bytes(b"text")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        formats.open_file(path, "subjects")
    with h5py.File(path, "w") as handle:
        handle["x"] = 1
    with pytest.raises(InputError, match="a foreign HDF5 file"):
        formats.open_file(path, "subjects")
    write(path)
    with pytest.raises(InputError, match=r"is 'rvga\.subjects', but an rvga 'ldrs' file"):
        formats.open_file(path, "ldrs")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        formats.open_file(path, "subjects")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda h: h.attrs.__setitem__("format_version", 99), "format_version 99"),
        (lambda h: h.attrs.__delitem__("flow"), "attribute 'flow' is missing"),
        (lambda h: h.__delitem__("subject"), "dataset 'subject' is missing"),
        (lambda h: (h.__delitem__("voxel_index"), h.__setitem__("voxel_index", [1.5])), "dtype"),
        (
            lambda h: (h.__delitem__("voxel_index"), h.__setitem__("voxel_index", [[1]])),
            "has 2 dimensions, not 1",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path, damage, message):
    path = write(tmp_path / "x.h5")
    with h5py.File(path, "r+") as handle:
        damage(handle)
    with pytest.raises(InputError, match=message):
        formats.open_file(path, "subjects")


@pytest.mark.parametrize("kind", sorted(formats.KINDS))
def test_every_kind_is_declared_soundly(kind):
    text = formats.describe_kind(kind)
    for name, entry in formats.KINDS[kind].datasets.items():
        assert name in text
        assert entry.meaning
        assert entry.dtype in (formats.TEXT, "z") or np.dtype(entry.dtype)
    for name in formats.KINDS[kind].attributes:
        assert f"@{name}\t" in text
