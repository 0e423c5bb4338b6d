% A rule that calls Python: see leaf.py.
:- use_module(library(byssus)).
:- blackbox('leaf.py', leaf_id, [+margin, +shape, +texture, -species], [on_error(discard)]).

0.7::margin(serrate); 0.3::margin(entire).
0.6::shape(ovate); 0.4::shape(lanceolate).
0.5::texture(glossy); 0.5::texture(leathery).

species(S) :- margin(M), shape(H), texture(T), leaf_id(M, H, T, S).

query(species(_)).
