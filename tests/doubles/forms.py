"""Made-up texts of every form that must survive: line breaks, blank lines, tabs, indents, signs."""

EMAIL = (
    "Subject: Invoice 2207 is wrong\n\nHello,\n\nthe invoice lists two printers, but we ordered one.\n\n"
    "Kind regards,\nMarta Lindqvist"
)
DIALOGUE = "Agent: How can I help you?\nCustomer: My parcel has not arrived.\nAgent: It will be with you tomorrow."
LIST = "Apple cake\n- 4 apples\n\t- peeled\n- 150 g butter\n\n1. Bake.\n2. Wait."
JSON = '{\n  "city": "Graz",\n  "items": ["lamp", "desk"],\n  "paid": true\n}'
CODE = 'def area(width, height):\n    """Of a rectangle."""\n\n    # in metres\n    return width * height'
FORMS = {"email": EMAIL, "dialogue": DIALOGUE, "list": LIST, "json": JSON, "code": CODE}
