"""Language models as black boxes: a prompt template is a relation."""

from byssus.llm.box import LLM as LLM
from byssus.llm.box import llm as llm
from byssus.llm.question import Question as Question
from byssus.llm.question import Report as Report
