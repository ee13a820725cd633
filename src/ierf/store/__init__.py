"""PFVs and iERFs of a data set on disk: collected once, resumed when killed, read in parts."""

from ierf.store.collecting import Collected, collect
from ierf.store.layer import Exemplar, Nearest, StoredLayer
from ierf.store.pictures import contact_sheet
from ierf.store.plan import Settings
from ierf.store.shard import Shard
from ierf.store.store import PFVStore
from ierf.store.verifying import problems

__all__ = [
    "Collected",
    "Exemplar",
    "Nearest",
    "PFVStore",
    "Settings",
    "Shard",
    "StoredLayer",
    "collect",
    "contact_sheet",
    "problems",
]
