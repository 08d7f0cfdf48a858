"""Golden cases of answer reading: `python answers.py > ../../crates/tasks/tests/data/answers.json`

Expected answers come from the projects' own rules: LLM-Adapters' patterns (its evaluate.py and
commonsense_evaluate.py) run by Python's `re`, and lm-evaluation-harness's own filters and metric, imported
(lm_eval 0.4.13). The readings that are ours have their answers written out by hand in the Rust test.
"""
import json
import re

from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter

NUMBERS = [
    ("The answer is 12 apples.", "12"), ("It costs $1,234.50.", "1234.5"), ("He eats 3/4 of the cake", "0.75"),
    ("So 7 - 3 = 4 and 4 it is", "4"), ("5-3", "3"), ("5-3", "-3"), ("It falls to -2 degrees", "-2"),
    ("It falls to \u22122 degrees", "-2"), ("12.", "12"), ("Version 1.5.3", "3"), ("#### 42", "42"), ("#### -7", "-7"),
    ("#### 1,000\n#### 3", "1000"), ("so #### 5 apples", "5"), ("", "0"), ("no number", "0"), ("two", "2"),
    ("that is 10%", "10"), ("1e3", "1000"), ("3.14159, about 3.1416", "3.1416"), ("x = 5, y = 6", "5"),
    ("2 + 2 = 4.0", "4"), ("$5", "5"), ("-$5", "-5"), ("-$5", "5"), (".5", "0.5"), ("0.3333", "0.33333"),
    ("0.331", "0.33333"), ("#### $1,080.50", "1080.50"), ("She has 3 cats, 2 dogs.", "2"), ("9 so...", "9"),
    ("The answer is 7\n", "7"), ("12 km/h", "12"), ("1,2,3", "123"), ("#### x", "3"), ("No. 7 -- 8", "8"),
    ("10 - 12 = -2", "-2"), ("- 4", "-4"), ("1 000", "1000"), ("#### 7.", "7"), ("####7", "7"),
]
LETTERS = [
    ("The answer is (C).", "C"), ("Because Dave ate it, it is D", "D"), ("Because Dave ate it, it is D", "B"),
    ("(b)", "B"), ("", "A"), ("E", "E"), ("A. 5 m", "A"), ("the answer is\nB", "B"), ("Rationale: CAB", "C"),
    ("\n x = 5", "A"), ("I CANNOT say", "C"),
]
WORDS = [
    (["true", "false"], "the correct answer is true", "true"), (["true", "false"], "not true but false", "false"),
    (["true", "false"], "untrue", "true"), (["true", "false"], "True", "true"), (["true", "false"], "", "false"),
    (["solution1", "solution2"], "solution 1", "solution1"),
    (["solution1", "solution2"], "the correct answer is solution2.", "solution2"),
    (["answer1", "answer2", "answer3", "answer4", "answer5"], "the correct answer is answer10", "answer1"),
    (["answer1", "answer2", "answer3", "answer4", "answer5"], "Answer2", "answer2"),
    (["answer1", "answer2", "answer3", "answer4", "answer5"], "answer3, no: answer1", "answer1"),
    (["ending1", "ending2", "ending3", "ending4"], "bendending3ending1", "ending3"),
    (["option1", "option2"], "option1/option2", "option1"), (["option1", "option2"], "option3", "option1"),
]
STRICT = RegexFilter(regex_pattern=r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = RegexFilter(regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)


def harness(filter_, response, gold):
    answer = filter_.apply([[response]], [{}])[0][0]
    score = exact_match_hf_evaluate(
        predictions=[answer], references=[f"reasons\n#### {gold}"], ignore_case=True, ignore_punctuation=False,
        regexes_to_ignore=[",", r"\$", "(?s).*#### ", r"\.$"])["exact_match"]
    return (None if answer == "[invalid]" else answer), bool(score)


def case(reading, response, gold, answer, right, words=()):
    return {"reading": reading, "words": list(words), "response": response, "gold": gold, "answer": answer,
            "right": right}


def main():
    cases = []
    for response, gold in NUMBERS:
        found = re.findall(r"-?\d+\.?\d*", response.replace(",", ""))
        answer = found[-1] if found else None
        right = answer is not None and abs(float(gold) - float(answer)) <= 0.001
        cases.append(case("last-number", response, gold, answer, right))
        cases.append(case("strict-match", response, gold, *harness(STRICT, response, gold)))
        cases.append(case("flexible-extract", response, gold, *harness(FLEXIBLE, response, gold)))
    for response, gold in LETTERS:
        found = re.findall("A|B|C|D|E", response.strip())
        answer = found[0] if found else None
        cases.append(case("first-letter", response, gold, answer, answer == gold))
    for words, response, gold in WORDS:
        found = re.findall("|".join(words), response.strip())
        answer = found[0] if found else None
        cases.append(case("label-word", response, gold, answer, answer == gold, words))
    print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")


if __name__ == "__main__":
    main()
