"""A key to eleven plants, such as botanists write."""


def leaf_id(margin: str, shape: str, texture: str) -> str:
    """The plant that has such leaves."""
    if margin == "entire":
        if shape == "lanceolate":
            return "entire lanceolate smooth oleander"
        return "entire oblong glossy laurel" if shape == "oblong" else "entire ovate papery beech"
    if margin == "serrate":
        if shape == "cordate":
            return "serrate cordate papery linden"
        if shape in ("lanceolate", "oblong"):
            return "serrate lanceolate smooth willow"
        if shape == "oval" and texture == "glossy":
            return "serrate oval glossy camellia"
        return "serrate ovate papery birch"
    if shape == "palmate":
        kinds = {"glossy": "ivy", "papery": "maple", "smooth": "plane"}
        return f"lobed palmate {texture} {kinds[texture]}"
    return "lobed oblong smooth oak"
