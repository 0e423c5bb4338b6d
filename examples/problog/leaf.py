"""A function that a logic engine cannot see into."""


def leaf_id(margin: str, shape: str, texture: str) -> str:
    """The species of a leaf, by a key such as botanists use."""
    if margin == "serrate":
        return "Carpinus betulus" if shape == "ovate" else "Castanea sativa"
    if texture == "leathery":
        return "Laurus nobilis"
    raise ValueError(f"the key has no {margin}, {shape}, {texture} leaf")
