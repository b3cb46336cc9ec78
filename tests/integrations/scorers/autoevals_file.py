from autoevals import Levenshtein, ValidJSON

valid_json = ValidJSON()
close = Levenshtein.partial(expected="It is 18 C in Paris")()
