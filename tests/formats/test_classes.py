from __future__ import annotations

import pytest

from tubelet.core.errors import ConfigError
from tubelet.formats import classes
from tubelet.formats.classes import CLASS_LISTS, MAPS, class_map, translate


def test_lists_have_their_known_lengths_and_no_class_twice():
    lengths = {name: len(names) for name, names in CLASS_LISTS.items()}
    assert lengths == {
        "coco": 80, "ytvis2019": 40, "ytvis2021": 40, "ytvis2022": 40, "ovis": 25, "voc": 20, "davis": 1,
        "mots": 2,
    }  # fmt: skip
    assert all(len(set(names)) == len(names) for names in CLASS_LISTS.values())


def test_known_places_in_the_lists():
    assert classes.YTVIS_2019[0] == "person"
    assert classes.YTVIS_2019[39] == "tennis_racket"
    assert classes.YTVIS_2021[0] == "airplane"
    assert classes.YTVIS_2021[39] == "zebra"
    assert list(classes.YTVIS_2021) == sorted(classes.YTVIS_2021)
    assert classes.COCO[64] == "mouse"
    assert classes.OVIS[24] == "Vehical"


@pytest.mark.parametrize(("source", "target"), sorted(MAPS))
def test_maps_lead_from_one_list_to_the_other(source, target):
    names = class_map(source, target)
    assert set(names) <= set(CLASS_LISTS[source])
    assert set(names.values()) <= set(CLASS_LISTS[target])


def test_coco_to_2019_is_the_papers_list_without_its_traps():
    names = class_map("coco", "ytvis2019")
    assert len(names) == 19
    assert names["car"] == "sedan"
    assert names["motorcycle"] == "motorbike"
    assert names["tennis racket"] == "tennis_racket"
    assert not {"mouse", "bird", "bicycle", "bus"} & set(names)


def test_2019_to_2021_merges_what_the_editors_merged():
    names = class_map("ytvis2019", "ytvis2021")
    assert {old: names[old] for old in ("eagle", "owl", "ape", "sedan")} == {
        "eagle": "bird", "owl": "bird", "ape": "monkey", "sedan": "car",
    }  # fmt: skip
    assert set(classes.YTVIS_2019) - set(names) == {"hand"}
    assert set(classes.YTVIS_2021) - set(names.values()) == {"flying_disc", "squirrel", "whale"}


def test_every_class_of_ovis_but_two_is_reached_from_2021():
    reached = set(class_map("ytvis2021", "ovis").values())
    assert set(classes.OVIS) - reached == {"Sheep", "Bicycle"}


def test_a_missing_map_or_list_is_said():
    with pytest.raises(ConfigError, match="no map of classes from ovis to coco"):
        class_map("ovis", "coco")
    with pytest.raises(ConfigError, match="did you mean 'ytvis2019'"):
        class_map("ytvis19", "coco")
    assert class_map("ytvis2021", "ytvis2022")["car"] == "car"


def test_translated_objects_have_new_labels_and_others_are_ignored(coco_set):
    translated = translate(coco_set, ("hound", "wolf"), {"dog": "hound"})
    assert translated.classes == ("hound", "wolf")
    tracks = translated.videos[0].tracks
    assert [(t.label, t.ignore) for t in tracks] == [(0, False), (0, True), (0, True)]
    assert [t.rles for t in tracks] == [t.rles for t in coco_set.videos[0].tracks]
    with pytest.raises(ConfigError, match="no class 'cat'"):
        translate(coco_set, ("hound",), {"cat": "cat"})
