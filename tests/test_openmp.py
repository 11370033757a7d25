from __future__ import annotations

from vlrl.openmp import SPIN_COUNT, set_waiting


def test_what_the_user_has_set_stays() -> None:
    nothing: dict[str, str] = {}
    set_waiting(nothing)
    assert nothing == {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(SPIN_COUNT)}
    for own in ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "passive"}):
        environment = dict(own)
        set_waiting(environment)
        assert environment == own
    environment = {"GOMP_SPINCOUNT": "0"}
    set_waiting(environment)
    assert environment["GOMP_SPINCOUNT"] == "0"
