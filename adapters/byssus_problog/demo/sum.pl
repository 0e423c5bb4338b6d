% A network sees two handwritten digits and is told only their sum.
% add is a Python function: the logic engine cannot look into it.

nn(digit, [Image], D, [0,1,2,3,4,5,6,7,8,9]) :: digit(Image, D).

sum(Z) :- digit(left, X), digit(right, Y), add(X, Y, Z).

query(sum(Z)).
