"""Plan: what will be evaluated how, why, and at what cost; before anything is."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What was chosen, and why.

    Attributes:
        provenance: "exact", "sampled", "mixed" or "nesydm".
        why: the reason, in a sentence.
        calls: the most distinct calls that each black box can be asked for; its budget, or None if
            it has none, where only the worlds that will be drawn decide.
        sampled: the concepts that are sampled, by name.
        circuit: the number of nodes of the compiled circuit; None where there is none.
        vtree: the name of the circuit's vtree, see `Circuit.compile`.
        sizes: for each vtree that was tried the number of nodes, or None where a limit was reached.
    """

    provenance: str
    why: str
    calls: dict[str, int | None] = field(default_factory=dict)
    sampled: tuple[str, ...] = ()
    circuit: int | None = None
    vtree: str | None = None
    sizes: dict[str, int | None] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.provenance}: {self.why}"]
        for name, calls in self.calls.items():
            most = "as many calls as distinct sampled arguments" if calls is None else calls
            lines.append(
                f"  black box {name}: {most if calls is None else f'at most {most} calls'}"
            )
        if self.sampled:
            lines.append(f"  sampled: {', '.join(self.sampled)}")
        if self.circuit is not None:
            lines.append(f"  circuit: {self.circuit} nodes{self._tried()}")
        return "\n".join(lines)

    def _tried(self) -> str:
        """The vtree; and what became of the others, if any."""
        if self.vtree is None:
            return ""
        others = [
            f"{name}: {'a limit was reached' if size is None else size}"
            for name, size in self.sizes.items()
            if name != self.vtree
        ]
        return f", vtree {self.vtree}" + (f" ({', '.join(others)})" if others else "")
