"""PFVs and iERFs of a data set on disk: collected once, resumed when killed, read in parts."""

from ierf.store.batch_collection import Clock, collect_batch, sites
from ierf.store.collecting import Collected, collect
from ierf.store.files import WRITER, Shard, explained, only_writer, read_json, wait_for_all, write, write_json
from ierf.store.layout import problems, weights_hash
from ierf.store.photographs import First, Images, StoredPhotographs, open_images, read_ahead
from ierf.store.pictures import contact_sheet, covered, lit, part
from ierf.store.plan import (
    NO_ROW,
    Dtype,
    ModelRecord,
    Settings,
    check_dtype,
    check_names,
    differences,
    position_of,
    quantised,
    reduced,
    reduced_size,
    restored,
)
from ierf.store.store import Exemplar, Nearest, PFVStore, StoredLayer

__all__ = [
    "NO_ROW",
    "WRITER",
    "Clock",
    "Collected",
    "Dtype",
    "Exemplar",
    "First",
    "Images",
    "ModelRecord",
    "Nearest",
    "PFVStore",
    "Settings",
    "Shard",
    "StoredLayer",
    "StoredPhotographs",
    "check_dtype",
    "check_names",
    "collect",
    "collect_batch",
    "contact_sheet",
    "covered",
    "differences",
    "explained",
    "lit",
    "only_writer",
    "open_images",
    "part",
    "position_of",
    "problems",
    "quantised",
    "read_ahead",
    "read_json",
    "reduced",
    "reduced_size",
    "restored",
    "sites",
    "wait_for_all",
    "weights_hash",
    "write",
    "write_json",
]
