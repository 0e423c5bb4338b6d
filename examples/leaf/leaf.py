"""A key to eleven plants, as botanists write them."""


def leaf_id(margin: str, shape: str, texture: str) -> str:
    """The plant that has such leaves."""
    if shape == "palmate":
        return {"glossy": "ivy", "papery": "maple", "smooth": "plane"}[texture]
    if margin == "lobed":
        return "oak"
    if margin == "serrate":
        if shape == "cordate":
            return "linden"
        if shape in ("lanceolate", "oblong"):
            return "willow"
        return "camellia" if (shape, texture) == ("oval", "glossy") else "birch"
    if shape == "lanceolate":
        return "oleander"
    return "laurel" if (shape, texture) == ("oblong", "glossy") else "beech"
