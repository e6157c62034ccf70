"""A store's layers are of one form, and used in that alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from image.errors import StorageError
from store.form import Form, current
from store.store import Store


def test_the_first_layer_decides(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store, store.session() as session:
        assert not (tmp_path / "store/form").exists()
        store.layers.overlay(())
        session.workspace(None)
        assert (tmp_path / "store/form").read_text() == current()


def test_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "form").write_text("user 5 with one id")
    form = Form(tmp_path, lambda: False)
    for ask in (form.require, form.take):
        with pytest.raises(StorageError, match=f"made by user 5 with one id and would not be the same for {current()}"):
            ask()
    assert (tmp_path / "form").read_text() == "user 5 with one id"


def test_a_store_without_layers_takes_any_form(tmp_path: Path) -> None:
    (tmp_path / "form").write_text("user 5 with one id")
    form = Form(tmp_path, lambda: True)
    form.take()
    form.require()
    assert (tmp_path / "form").read_text() == current()


def test_this_process_has_a_form() -> None:
    assert current().split()[0] == ("root" if os.geteuid() == 0 else "user")
