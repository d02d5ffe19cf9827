"""The sweep of the zoo: measuring one network, running many, keeping results, writing the two pages."""
